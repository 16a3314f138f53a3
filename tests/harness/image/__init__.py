"""The image: build it, slim it, list its contents, and make bases for it where no registry can be reached."""
