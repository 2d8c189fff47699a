"""LPIPS, Clean-FID and DINO-Struct-Dist with the user's weights, in a child process with an environment of its own."""
