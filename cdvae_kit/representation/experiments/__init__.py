"""What judges the papers' claims: files named after their command, a folder where a paper has several."""
