"""The figures of the picture, as SVG: the page and the standalone picture show the same ones."""
