"""Front ends that compute the steps of a run: this project's loop, Hugging Face, Lightning."""
