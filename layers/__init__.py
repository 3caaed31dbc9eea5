"""Data layers fed to the nets: dataset trees, clip sampling, the frame store."""
