"""The page of tools/demo.py: what it shows (look.py), the work behind it (jobs.py), its server (app.py, page.html)."""
