"""A cluster on one machine: nodes, pods and clients as network namespaces. For the demo, the tests, the benchmarks,
and for whoever wants to see what a network does when it breaks.
"""
