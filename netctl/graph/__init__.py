"""A picture of the overlay and the Services, out of what nodes say of themselves and of each other."""
