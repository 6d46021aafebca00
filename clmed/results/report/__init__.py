"""`clmed report`: runs as one HTML page that needs nothing else.

runs.py      the runs as they are, damaged ones too
page.py      what the page says: sections of
scores.py, facts.py, tables.py, figures.py, drawing.py
render.py    the page as HTML, through assets/page.html
"""
