"""The API functions of pre-training: prepare, inspect, plan, pretrain, resume, extend, evaluate, report, convert."""
