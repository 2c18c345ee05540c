// The directions in which a sample of vectors varies most.
#pragma once

#include <cstdint>
#include <vector>

namespace augur {

struct Pca {
  std::vector<float> mean;        // [hidden_size]
  std::vector<float> components;  // [dims, hidden_size], orthonormal rows, by falling variance
  std::vector<double> variances;  // [dims], of the sample along each component
  double total_variance = 0;      // along all directions
  int num_iterations = 0;
};

/// Fits `dims` principal components to `samples` [num_samples, hidden_size] by subspace iteration
/// with a few directions to spare, ended by a Rayleigh-Ritz step. Where the sample varies in fewer
/// directions, the others are arbitrary and have no variance. Deterministic on one machine. Takes
/// about twice the sample's memory, freed on return. Requires 1 <= dims <= min(num_samples - 1,
/// hidden_size) and finite values.
/// Source: Halko, Martinsson and Tropp 2011, arXiv:0909.4061, algorithms 4.4 and 5.3.
Pca fit_pca(const float* samples, int64_t num_samples, int64_t hidden_size, int dims);

/// Eigenvalues and orthonormal eigenvectors (rows of `vectors`) of a symmetric matrix [n, n], by
/// falling value. Source: cyclic Jacobi, Golub and Van Loan, Matrix Computations, 4th ed., 8.5.
void symmetric_eigen(std::vector<double> matrix,
                     int n,
                     std::vector<double>& values,
                     std::vector<double>& vectors);

}  // namespace augur
