//! What both processes, api and worker, begin with: settings, logs and traces, metrics, the signal to stop.
