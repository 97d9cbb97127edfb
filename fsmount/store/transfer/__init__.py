"""Import, export, verify, diff and estimate: transfers between a store and folders."""
