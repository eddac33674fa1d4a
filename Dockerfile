# What DOCKER=true of scripts/run_classification.sh and run_entailment.sh runs in: Fluoroscope at the
# versions of the lock, without data and weights. Those lie outside and are mounted.
FROM python:3.11-slim
WORKDIR /opt/fluoroscope
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY fluoroscope fluoroscope
RUN pip install --no-cache-dir --constraint requirements.lock ".[wandb,lora]" && rm -rf fluoroscope
COPY scripts scripts
