"""What tests use with any server: records of requests, a proxy with faults, and cassettes."""
