"""Candidate generation: co-visitation, user k-NN, second-order co-visitation and top lists."""
