"""What is measured: one module for each program, all made of the same parts, so that they differ in nothing else."""
