"""The figures of a job, and the page that shows them."""
