"""Procedural walkers: body and gait of a subject (body), pose of every frame (gait), solid parts (parts),
camera (camera), pictures (render), one sequence (sequence), folders on disk (trees)."""
