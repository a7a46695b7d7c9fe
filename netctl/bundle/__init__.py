"""All that a node can be asked, in one archive, and the same commands on the archive: `--from`."""
