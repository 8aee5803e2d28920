"""Preparation of data sets for Amazon Personalize, from files of any kind."""
