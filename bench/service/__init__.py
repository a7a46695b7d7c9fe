"""How fast netproxy is with many Services, in its three ways to write rules."""
