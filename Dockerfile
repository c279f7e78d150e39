FROM python:3.13-slim
# Not everything: keys may stand beside these.
COPY setup.cfg setup.py pyproject.toml README.rst CHANGELOG.rst LICENSE /usr/src/regguard/
COPY regguard /usr/src/regguard/regguard
COPY twisted /usr/src/regguard/twisted
# At its first start Twisted writes its plugin cache.
RUN pip install --no-cache-dir '/usr/src/regguard[argon2]' && twist regguard --help > /dev/null
WORKDIR /etc/regguard
# Nobody in particular; compose.yaml says who may read the key.
USER 65534
EXPOSE 5043
ENTRYPOINT ["twist", "--log-format=text", "regguard"]
