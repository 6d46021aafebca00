"""`clmed report`: runs as one HTML page that needs nothing else.

page.py        what the page says: a summary.py, and sections
scores.py, losses.py (of what was answered.py), facts.py     as tables.py
figures.py     as drawing.py
findings.py, words.py
render.py      the page as HTML, through assets/page.html
"""
