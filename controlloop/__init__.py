"""What both daemons share: the control loop and its surroundings. It knows nothing of overlays or services."""

__version__ = "0.1.0"
