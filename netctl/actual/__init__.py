"""What the kernel holds of ours, read through a Node by questions that a bundle can answer, too."""
