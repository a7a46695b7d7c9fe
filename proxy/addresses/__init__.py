"""Which addresses this node has.

messages   rtnetlink's words for them   pure
kernel     reads them, and hears when one comes or goes
"""
