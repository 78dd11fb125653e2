"""What is kept in Redis and in S3, and how it may change."""
