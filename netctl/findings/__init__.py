"""What can be wrong, by code: facts are read, judged without effects, and shown with what to do."""
