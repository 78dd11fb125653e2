"""The Celery worker and the child process that prunes. The only package that imports torch."""
