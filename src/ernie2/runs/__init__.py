"""From a recipe to a finished run: folder, objects, start, resume, extend, load, evaluate, export."""
