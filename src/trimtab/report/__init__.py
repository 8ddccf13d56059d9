"""What a person reads about a run: an HTML page, lines of text, JSON, and the catalogues of rules.

`trimtab.report.html.write(run)` writes the page. Nothing here imports torch.
"""
