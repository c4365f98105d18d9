"""gunicorn --config gunicorn.conf.py: several processes of demo_api, see docs/operating.md"""

wsgi_app = "demo_api:create_app()"
bind = "127.0.0.1:8080"
workers = 2
worker_class = "gthread"
threads = 200  # as demo-api serve has: one for each client that waits for its run or follows events, and eight more
timeout = 0  # a thread may wait as long as a run may take
graceful_timeout = 60  # over DEMO_API_DRAIN (30) and DEMO_API_STOP_GRACE (20)


def post_worker_init(worker):
    """Starts waiting runs at once, not with the first request."""
    worker.wsgi.extensions["demo_api"].start()
