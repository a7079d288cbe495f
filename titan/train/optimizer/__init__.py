"""What steps the weights: learning rates of groups, and Muon for matrices."""
