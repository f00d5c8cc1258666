"""Pages for a browser on one's own machine (the serve extra): the annotation page."""
