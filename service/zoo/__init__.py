"""What a prefix in S3 holds, read from listings and the heads of files."""
