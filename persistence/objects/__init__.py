"""Files in object storage: S3, Google Cloud Storage, Azure, or a folder."""
