"""For ``colcon build``."""

from setuptools import setup

setup(
    name="edgeturbo_ros",
    version="0.1.0",
    py_modules=["turbo_node"],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/edgeturbo_ros"]),
        ("share/edgeturbo_ros", ["package.xml"]),
    ],
    install_requires=["setuptools", "edgeturbo"],
    entry_points={"console_scripts": ["turbo_node = turbo_node:main"]},
)
