# A server of captions: docker build -t aligncap . && docker run -p 8000:8000 -e ALIGNCAP_TOKEN=… aligncap
FROM python:3.12-slim AS build
COPY pyproject.toml README.md LICENSE NOTICE /source/
COPY src /source/src
RUN python -m venv /opt/aligncap \
 && /opt/aligncap/bin/pip install --no-cache-dir '/source[serve,media]' \
 && /opt/aligncap/bin/pip uninstall --yes pip

FROM python:3.12-slim
COPY --from=build /opt/aligncap /opt/aligncap
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin aligncap
USER 10001
ENV PATH=/opt/aligncap/bin:$PATH PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["aligncap"]
CMD ["serve", "--host", "0.0.0.0"]
