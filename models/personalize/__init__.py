"""What Amazon Personalize has beside recommendations: resources, recipes, datasets and jobs."""
