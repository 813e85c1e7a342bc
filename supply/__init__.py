"""What finllm is installed with: known vulnerabilities, licences, a bill of materials; and its container's steps."""
