"""Writes Services into a store: etcd, or a directory of manifests."""
