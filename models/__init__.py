"""The nets (gaitnet.py), and the folder where trained weights are kept."""
