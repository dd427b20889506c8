#!/bin/sh
export password=hunter2
