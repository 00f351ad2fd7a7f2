"""What must hold in every adapter alike: each test runs over both frameworks, and often over sync and async."""
