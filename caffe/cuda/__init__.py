"""Training on CUDA: iterations as graphs, and data that travels while the GPU computes."""
