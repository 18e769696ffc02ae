# bundled models
