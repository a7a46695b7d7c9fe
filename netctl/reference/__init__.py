"""The commands as data, and what is made of it: a list for programs, man pages, completion."""
