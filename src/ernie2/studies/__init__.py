"""Studies that compare learning methods: plan and run the training, and write one record; `analysis` evaluates it."""
