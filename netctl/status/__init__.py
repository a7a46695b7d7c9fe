"""Is this node's network healthy, and if not, where first?"""
