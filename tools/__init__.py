"""What writes pages, diagrams and figures, and what judges the tests. Nothing here is part of the package."""
