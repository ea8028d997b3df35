"""RayJobs (KubeRay): manifest, Kubernetes API, and the runner that follows a job to its end."""
