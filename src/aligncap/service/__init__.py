"""Pages for a browser on one's own machine (the serve extra): the annotation page.

`annotate_tasks` decides who is shown what, `annotate` is the server, `annotate_page.html` the page.
"""
